# The notebook's programs, and what its user installs.
PATH=/opt/venv/bin:/home/jovyan/.local/bin:$PATH
