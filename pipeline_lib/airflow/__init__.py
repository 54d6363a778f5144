"""The local Airflow, and the connection by which any Airflow starts Lode's jobs. Airflow itself lives in a virtual
environment of its own (docs/decisions/0008) and is never imported here."""
