"""Where each record of a topic is: the stages' counts, reconciled hour by hour."""
