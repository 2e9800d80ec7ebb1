"""The one app of the test project."""
