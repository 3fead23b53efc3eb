"""Thin typed bindings of the system calls that Python's os module lacks.

No policy, nothing of ours imported, `OSError` on failure. Only these modules call libc. The calls hold the
interpreter's lock (``PyDLL``): each is short, and a child that was cloned in the middle of one finds the
lock held by itself.
"""
