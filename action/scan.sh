#!/usr/bin/env bash
# Fetches the changed adapters from git-lfs and scans them.
#
# Reads BASE_SHA, DEFAULT_BRANCH, SCAN_PATHS, CHANGED_ONLY and SCAN_ARGS; writes status, sarif and
# markdown to $GITHUB_OUTPUT and the report to $GITHUB_STEP_SUMMARY. Ends with 0 whatever the
# verdict: a later step fails the job, after the reports are uploaded.
#
# What is scanned must not say how: configuration, baseline and packs are those of the base branch,
# checked out beside the workspace, and nothing in the workspace is believed.
set -euo pipefail

weights='(^|/)adapter_config\.json$|\.(safetensors|bin|pt|pth|ckpt|gguf|npz|nemo)$|\.(safetensors|bin)\.index\.json$'
# Words as a shell splits them, quotes and all, without a shell that would run anything in them.
args=()
SCAN_ARGS=${SCAN_ARGS:-}
if [ -n "${SCAN_ARGS//[[:space:]]/}" ]; then
  words=$(mktemp)
  if ! printf '%s\n' "$SCAN_ARGS" | xargs printf '%s\0' > "$words"; then
    echo "args: a quote that does not end" >&2
    echo "status=2" >> "$GITHUB_OUTPUT"
    exit 0
  fi
  mapfile -d '' -t args < "$words"
fi
mapfile -t targets < <(printf '%s\n' "${SCAN_PATHS:-.}" | sed '/^[[:space:]]*$/d')
mode=()
reports="${RUNNER_TEMP:-$(mktemp -d)}"
base=''
if [ -n "${BASE_SHA:-}" ] && [ -n "${BASE_SHA//0/}" ]; then
  base=$BASE_SHA
  git cat-file -e "$base^{commit}" 2>/dev/null || git fetch --quiet --depth=1 origin "$base"
fi

if [ "${CHANGED_ONLY:-true}" = true ] && [ -n "$base" ]; then
  mapfile -d '' -t targets < <(
    git diff --name-only --diff-filter=d -z "$base" HEAD | grep -zEi "$weights" || true
  )
  mode=(--hook)
  if [ ${#targets[@]} -eq 0 ]; then
    echo "no adapter has changed"
    echo "status=0" >> "$GITHUB_OUTPUT"
    exit 0
  fi
fi

if command -v git-lfs >/dev/null; then
  # A changed configuration needs its unchanged weights too: fetch by directory.
  if [ ${#mode[@]} -gt 0 ]; then
    include=$(for path in "${targets[@]}"; do dirname -- "$path"; done | sort -u |
      sed 's|^\.$|*|; t; s|$|/*|' | paste -sd, -)
    git lfs pull --include="$include" --exclude=""
  else
    git lfs pull
  fi
fi

# A push of a new branch, or a run by hand, has no base: the default branch is what the owner said.
trusted="$reports/adapter-scan-base"
trust=(--untrusted .)
if [ -z "$base" ] && [ -n "${DEFAULT_BRANCH:-}" ] &&
  git fetch --quiet --depth=1 origin "refs/heads/$DEFAULT_BRANCH"; then
  base=$(git rev-parse FETCH_HEAD)
fi
if [ -n "$base" ]; then
  git worktree remove --force "$trusted" 2>/dev/null || rm -rf -- "$trusted"
  GIT_LFS_SKIP_SMUDGE=1 git worktree add --quiet --force --detach "$trusted" "$base"
  packs=$(git -C "$trusted" ls-files '*signature.yaml' | sed 's|[^/]*$|*|' | paste -sd, -)
  if [ -n "$packs" ] && command -v git-lfs >/dev/null; then
    git -C "$trusted" lfs pull --include="$packs" --exclude=""
  fi
  trust+=(--config "$trusted")
else
  trust+=(--isolated)
fi

sarif="$reports/adapter-scan.sarif"
markdown="$reports/adapter-scan.md"
status=0
adapter-scanner scan "${trust[@]}" "${mode[@]}" "${args[@]}" -f sarif -o "$sarif" -- "${targets[@]}" || status=$?
echo "status=$status" >> "$GITHUB_OUTPUT"
if [ "$status" -eq 2 ]; then
  exit 0
fi
# The second report costs one digest per adapter: the results are in the cache.
adapter-scanner scan "${trust[@]}" "${mode[@]}" "${args[@]}" -f markdown -o "$markdown" -- "${targets[@]}" || true
{
  echo "sarif=$sarif"
  echo "markdown=$markdown"
} >> "$GITHUB_OUTPUT"
cat "$markdown" >> "$GITHUB_STEP_SUMMARY"
