"""What the writer tells others of its pipelines, through the topic `cdc.status`."""
