"""The CometBFT engine."""
