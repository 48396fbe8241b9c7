"""What the delta-writer measures of the data itself; what it measures of its work is in `cdc_shared.metrics`."""
