"""What a supervisor and the processes it starts say to each other: a spec file in, progress lines out.

On the ground floor, without torch, because both sides import it.
"""
