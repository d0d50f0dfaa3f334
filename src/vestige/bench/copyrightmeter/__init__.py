"""CopyrightMeter's grid: cloaks, sanitised generators and watermarks in one audit, each under the attacks that answer it.

Protect, attack, use, measure: fidelity (what protecting costs), efficacy (what it achieves over nothing protected),
resilience (how much of the efficacy is left after an attack), with what the attack destroys beside it. The scores and
the audit of a user's own pictures are in `vestige.watermark.copyrightmeter`.
"""
