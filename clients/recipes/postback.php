<?php
/* Sends one postback.  PHP 7.4 or later with the curl extension (Debian: php-curl).
 *
 *   POSTBACK_URL=https://track.example.com/p/KEY php postback.php click_id=0saq... txid=A-1001 type=sale value=12.50
 *
 * Or require this file and call send_postback().  Call it when the order is stored, from a queue or a cron job:
 * not while the buyer waits.  With POSTBACK_SECRET (pbs_...) the request is signed. */

declare(strict_types=1);

/** The tracker could not be reached: send the same postback, with the same txid, again later. */
class TryAgainLater extends RuntimeException {}

/** The tracker will not count it however often it is sent; the message says why. */
class PostbackRefused extends RuntimeException {}

/** What is signed: parameters decoded, encoded alike, sorted by name and value. */
function canonical_query(string $query): string
{
    $pairs = [];
    foreach (array_filter(explode('&', $query), 'strlen') as $pair) {
        [$name, $value] = array_map('urldecode', explode('=', $pair, 2) + [1 => '']);
        if ($name !== 'sig' && $name !== 'sig_time') {
            $pairs[] = [rawurlencode($name), rawurlencode($value)];
        }
    }
    usort($pairs, fn (array $a, array $b): int => strcmp($a[0], $b[0]) ?: strcmp($a[1], $b[1]));
    return implode('&', array_map(fn (array $pair): string => "$pair[0]=$pair[1]", $pairs));
}

function sign(string $secret, string $method, string $path, string $query, string $body, string $time): string
{
    $lines = ['postbackd-v1', $method, $path, canonical_query($query), hash('sha256', $body), $time];
    return hash_hmac('sha256', implode("\n", $lines), $secret);
}

/** One request: [status, headers by lower-case name, trouble]; status 0 when there was no answer. */
function ask(string $url, ?string $secret): array
{
    $headers = [];
    $sent = [];
    if ($secret !== null) {
        $now = (string) time();
        $signature = sign($secret, 'GET', parse_url($url, PHP_URL_PATH), parse_url($url, PHP_URL_QUERY), '', $now);
        $sent[] = "X-Postback-Signature: t=$now,v1=$signature";
    }
    $curl = curl_init($url);
    curl_setopt_array($curl, [
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_CONNECTTIMEOUT_MS => 500,
        CURLOPT_TIMEOUT_MS => 2000,
        CURLOPT_HTTPHEADER => $sent,
        // Certificates are verified and redirects not followed, unless someone asks for it: leave it so.
        CURLOPT_HEADERFUNCTION => function ($curl, string $line) use (&$headers): int {
            [$name, $value] = explode(':', $line, 2) + [1 => ''];
            $headers[strtolower($name)] = trim($value);
            return strlen($line);
        },
    ]);
    $answered = curl_exec($curl) !== false;
    $status = $answered ? curl_getinfo($curl, CURLINFO_RESPONSE_CODE) : 0;
    return [$status, $headers, curl_error($curl)];
}

/** Sends up to three times; returns the verdict.  $postback: click_id, txid, type, value, currency ... */
function send_postback(string $url, array $postback, ?string $secret = null): string
{
    if (($postback['txid'] ?? '') === '') {
        throw new PostbackRefused('give a txid: without one a retry cannot be told from a second sale');
    }
    $url .= (strpos($url, '?') === false ? '?' : '&') . http_build_query($postback, '', '&', PHP_QUERY_RFC3986);
    for ($try = 1; ; $try++) {
        [$status, $headers, $error] = ask($url, $secret);
        if ($status !== 0 && $status !== 408 && $status !== 429 && $status < 500) {
            return read_verdict($status, $headers['postbackd-verdict'] ?? '', $headers['postbackd-reason'] ?? '');
        }
        if ($try === 3) {
            throw new TryAgainLater(($status ?: $error) . ': send the same postback, with the same txid, again later');
        }
        $named = $headers['retry-after'] ?? '';
        sleep(ctype_digit($named) ? min((int) $named, 10) : 2 ** ($try - 1));
    }
}

function read_verdict(int $status, string $verdict, string $reason): string
{
    if ($status === 404) {
        throw new PostbackRefused('404: the tracker does not know this URL, or the signature is wrong: '
            . "compare both with 'postbackd network list'");
    }
    if ($verdict === 'rejected' || $verdict === 'unmatched') {
        throw new PostbackRefused("$verdict: $reason (see the network's log: postbackd log)");
    }
    if ($status < 200 || $status > 299) {
        throw new PostbackRefused("$status: this is not the address of a tracker: look at POSTBACK_URL");
    }
    return $verdict ?: 'delivered'; // accepted, duplicate, updated, held, queued; other trackers name no verdict
}

if (PHP_SAPI === 'cli' && realpath($argv[0]) === __FILE__) {
    $postback = [];
    foreach (array_slice($argv, 1) as $word) {
        [$name, $value] = explode('=', $word, 2) + [1 => ''];
        $postback[$name] = $value;
    }
    try {
        echo send_postback((string) getenv('POSTBACK_URL'), $postback, getenv('POSTBACK_SECRET') ?: null), "\n";
    } catch (RuntimeException $error) {
        fwrite(STDERR, $error->getMessage() . "\n");
        exit($error instanceof TryAgainLater ? 75 : 1);
    }
}
