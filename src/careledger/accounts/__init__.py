"""Accounts: who created what, in parts of a thousand, and how often it was opened. Pure; keeps and fetches nothing."""

from careledger.accounts.contributions import Account, Content, Opening, account, content_of

__all__ = ["Account", "Content", "Opening", "account", "content_of"]
