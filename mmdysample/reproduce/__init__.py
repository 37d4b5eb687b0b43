"""Each published table as something to plan, run, resume, gather and show."""
