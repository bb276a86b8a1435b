"""`fraud stream`: a member of a consumer group, whose answers and histories are written exactly once."""
