"""The servers and workers that the tests start for themselves: private, on free ports, in folders of their own."""
