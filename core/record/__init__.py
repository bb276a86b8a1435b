"""What happened to the cases that judge: every use of the test cases, the plan, copies in several splits, the chain.

Nothing here judges a model. The evidence shows what these modules found.
"""
