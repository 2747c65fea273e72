"""Pure mathematics of adversarial training: losses on logits."""
