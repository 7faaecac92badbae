"""The gate inside an MLflow server: `mlflow server --app-name adapter-scanner`.

MLflow reaches its registry and its artifacts by many routes: two API prefixes, a protobuf
service in several versions, GraphQL, artifact proxies and native ASGI endpoints. The gate
stands behind all of them, at the two objects every route ends in: the registry's store
(`registry`) and the artifact repositories (`artifacts`).
"""
