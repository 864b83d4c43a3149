"""A docker-compose file as an app release: what a Supervisor takes is passed, what it would drop is refused.

`read.read_compose` is the door; `document` is the YAML, `fields` the table of what a service may say, `service`,
`mounts`, `ports` and `networking` the rules, `values` single values, `notes` what is told. All of it is pure.
"""
