"""The one door for transactions: rules in a fixed order, a seen-cache and quotas."""
