"""What the necks and heads of several frameworks share."""
