#!/usr/bin/env bash
# Puts the Markdown report into the one comment this action keeps on a pull request.
set -euo pipefail

marker='<!-- adapter-scanner -->'
body=$(mktemp)
{
  echo "$marker"
  head -c 60000 "$REPORT"
} > "$body"
comments="repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments"
mine=$(gh api --paginate "$comments" --jq ".[] | select(.body | startswith(\"$marker\")) | .id" | head -n 1)
if [ -n "$mine" ]; then
  gh api --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$mine" -F "body=@$body" >/dev/null
else
  gh api --method POST "$comments" -F "body=@$body" >/dev/null
fi
