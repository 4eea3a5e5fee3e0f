"""The job: what to transfer, the plan, one range, many ranges."""
