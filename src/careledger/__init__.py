"""careledger: a decentralised, tamper-evident network for health records."""

__version__ = "0.1.0"
