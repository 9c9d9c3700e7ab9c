#!/bin/sh
# Random passwords for docker-compose.yml in FOLDER, and in ENV_FILE the user that may read them. Never overwrites a password.
#   deploy/secrets.sh [FOLDER] [ENV_FILE]
set -eu
folder=${1:-secrets}
env_file=${2:-.env}
umask 077

# Without a line's end: Kubernetes would take it for a part of the password.
random() { head -c 24 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'; }

mkdir -p "$folder"
[ -s "$folder/dashboard_password" ] || random >"$folder/dashboard_password"
[ -s "$folder/db_password" ] || random >"$folder/db_password"
# libpq's format: host:port:database:user:password, with backslashes before colons. It follows the password.
escaped=$(sed 's/[\\:]/\\&/g' "$folder/db_password")
case "$(cat "$folder/pgpass" 2>/dev/null || :)" in
  *":$escaped") ;;
  *) printf 'db:5432:affinity:affinity:%s\n' "$escaped" >"$folder/pgpass" ;;
esac

# Containers run as whoever owns the files, but never as root.
uid=$(id -u)
if [ "$uid" = 0 ]; then
  uid=10001
  chown "$uid" "$folder"/db_password "$folder"/dashboard_password "$folder"/pgpass
fi
grep -qs '^AFFINITY_SEARCH_UID=' "$env_file" || echo "AFFINITY_SEARCH_UID=$uid" >>"$env_file"
echo "secrets are in $folder; the dashboard takes any user name with the password in $folder/dashboard_password" >&2
