"""The only room that speaks to Kubernetes, beside kopf in the operator."""
