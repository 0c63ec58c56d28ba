"""AWS: regions and endpoints, the ambient chain, assumed roles, and what keeps their credentials fresh.

The only package that imports botocore, and only inside functions, so that who has no Bedrock provider never loads it.
Decisions (regions, schedule, role_request, steps) are pure; the rest is an edge.
"""
