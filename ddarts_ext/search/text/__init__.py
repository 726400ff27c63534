"""Searching a recurrent cell on text: what the one loop of the Searcher asks of it."""
