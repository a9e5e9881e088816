"""The real protocol in worlds of virtual time, where nothing happens unless somebody decides that it does."""
