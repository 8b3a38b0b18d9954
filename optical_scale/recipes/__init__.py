"""One verb each, one page each: the only place where configuration meets components."""
