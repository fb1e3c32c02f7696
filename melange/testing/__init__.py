"""Fakes and builders for tests, the project's own and its users'."""
