"""The transfer itself: what to transfer, the plan, one range, many ranges."""
