//! What goes on behind the requests: roll, upload, retention over both tiers, the disk budget.
