"""Airflow DAGs. They arrive with the scheduling work; nothing is here yet."""
