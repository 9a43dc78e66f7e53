# Sourced by every non-interactive bash: gives the pod's user a name where it has none.
if ! getent passwd "$(id -u)" >/dev/null 2>&1 && [ -z "${NSS_WRAPPER_PASSWD:-}" ]; then
  if NSS_WRAPPER_PASSWD=$(mktemp /tmp/passwd.XXXXXX) && NSS_WRAPPER_GROUP=$(mktemp /tmp/group.XXXXXX); then
    echo "postgres:x:$(id -u):$(id -g):PostgreSQL:/tmp:/bin/false" > "$NSS_WRAPPER_PASSWD"
    echo "postgres:x:$(id -g):" > "$NSS_WRAPPER_GROUP"
    for wrapper in /usr/lib/*/libnss_wrapper.so; do
      LD_PRELOAD=$wrapper
    done
    export LD_PRELOAD NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
  fi
fi
