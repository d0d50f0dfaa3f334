"""Data packs, distortions, tampering and procedural pictures."""
