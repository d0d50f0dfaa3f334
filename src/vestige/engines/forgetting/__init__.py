"""Making models forget: the problem, one tuning loop, Fisher information, evaluation against a retrained model."""
