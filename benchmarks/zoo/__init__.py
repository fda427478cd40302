"""The zoo: small backbones with all that is known of them, kept in the repository (docs/zoo.md)."""
