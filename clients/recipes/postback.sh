#!/usr/bin/env bash
# Sends one postback with curl.  bash, curl and coreutils; nothing secret appears in the list of processes.
#
#   export POSTBACK_URL=https://track.example.com/p/KEY      # POSTBACK_SECRET=pbs_... too, if the network signs
#   ./postback.sh click_id=0saq... txid=A-1001 type=sale value=12.50 currency=USD
#
# Exit status: 0 counted (or counted already), 1 refused and why, 75 the tracker is away: send the same again later.
set -euo pipefail

encode() { # as RFC 3986 has it: everything but letters, digits and -._~
    printf '%s' "$1" | od -An -v -tu1 | LC_ALL=C awk '{
        for (i = 1; i <= NF; i++) { c = sprintf("%c", $i)
            if (c ~ /[A-Za-z0-9._~-]/) printf "%s", c; else printf "%%%02X", $i } }'
}

query_of() { # NAME=VALUE...: the query, sorted by name and value, which is also what is signed
    local pair separator=
    for pair in "$@"; do
        case $pair in *=*) ;; *) pair="$pair=" ;; esac
        printf '%s=%s\n' "$(encode "${pair%%=*}")" "$(encode "${pair#*=}")"
    done | LC_ALL=C sort -t= -k1,1 -k2,2 | while read -r pair; do
        printf '%s%s' "$separator" "$pair"; separator='&'
    done
}

pad() { # SECRET BYTE: the 64 bytes of a key for HMAC (RFC 2104), as printf reads them
    local i hex byte
    hex=$(printf '%s' "$1" | od -An -v -tx1 | tr -d ' \n')
    for ((i = 0; i < 128; i += 2)); do
        byte=${hex:i:2}
        printf '\\x%02x' $((16#${byte:-00} ^ $2))
    done
}

hmac() { # SECRET, of at most 64 bytes: HMAC-SHA256 of standard input, in hex
    local inner
    inner=$({ printf "$(pad "$1" 0x36)"; cat; } | sha256sum | cut -c1-64)
    printf "$(pad "$1" 0x5c)$(sed 's/../\\x&/g' <<<"$inner")" | sha256sum | cut -c1-64
}

sign() { # SECRET METHOD PATH QUERY BODY TIME
    local body
    body=$(printf '%s' "$5" | sha256sum | cut -c1-64)
    printf 'postbackd-v1\n%s\n%s\n%s\n%s\n%s' "$2" "$3" "$4" "$body" "$6" | hmac "$1"
}

send() { # NAME=VALUE...
    local query config headers status verdict now mark='?'
    query=$(query_of "$@")
    case $POSTBACK_URL in *\?*) mark='&' ;; esac
    config="url = \"$POSTBACK_URL$mark$query\""
    if [ -n "${POSTBACK_SECRET:-}" ]; then # what is signed is the query of this script: no parameters in POSTBACK_URL
        now=$(date +%s)
        config+=$'\n'"header = \"X-Postback-Signature: t=$now,v1=$(
            sign "$POSTBACK_SECRET" GET "/${POSTBACK_URL#*://*/}" "$query" '' "$now")\""
    fi
    # The address goes in by standard input. curl repeats the very same request after a time-out, 408, 429 and 5xx,
    # waits longer each time, and as long as Retry-After says. Redirects are not followed.
    headers=$(curl --config - --silent --show-error --output /dev/null --dump-header - \
        --connect-timeout 0.5 --max-time 2 --retry 2 --retry-connrefused --retry-max-time 30 <<<"$config") || {
        echo "no answer: send the same request, with the same txid, again later" >&2
        return 75
    }
    status=$(sed -n 's|^HTTP/[0-9.]* \([0-9]*\).*|\1|p' <<<"$headers" | tail -1)
    verdict=$(tr -d '\r' <<<"$headers" | sed -n 's/^postbackd-verdict: //Ip' | tail -1)
    explain "$status" "$verdict" "$(tr -d '\r' <<<"$headers" | sed -n 's/^postbackd-reason: //Ip' | tail -1)"
}

explain() { # STATUS VERDICT REASON
    case $1/$2 in
    2??/ | 2??/accepted | 2??/duplicate | 2??/updated | 2??/held | 2??/queued) echo "${2:-delivered}" ;;
    2??/* | 422/*)
        echo "$2: $3 (see the network's log: postbackd log)" >&2
        return 1 ;;
    404/*)
        echo "404: the tracker does not know this URL, or the signature is wrong:" \
            "compare both with 'postbackd network list'" >&2
        return 1 ;;
    408/* | 429/* | 5??/*)
        echo "$1: the tracker is busy: send the same request, with the same txid, again later" >&2
        return 75 ;;
    *)
        echo "$1: this is not the address of a tracker: look at POSTBACK_URL" >&2
        return 1 ;;
    esac
}

# Nothing is sent when the file is read with `source`.
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    : "${POSTBACK_URL:?set it to the network\'s postback URL, such as https://track.example.com/p/KEY}"
    case " $*" in
    *' txid='?*) send "$@" ;;
    *) echo "give txid=ORDER: without one a retry cannot be told from a second sale" >&2; exit 1 ;;
    esac
fi
