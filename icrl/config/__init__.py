"""The config of an experiment: components, the schema of a YAML file, and its loader."""
