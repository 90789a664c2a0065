# frozen_string_literal: true

# Sends one postback.  Ruby 2.7 or later, nothing to install.
#
#   POSTBACK_URL=https://track.example.com/p/KEY ruby postback.rb click_id=0saq... txid=A-1001 type=sale value=12.50
#
# Or: require_relative "postback"; Postback.deliver(url, {click_id: ..., txid: ...}).  Call it when the order is stored,
# from a job: not while the buyer waits.  With POSTBACK_SECRET (pbs_...) the request is signed.

require "digest"
require "net/http"
require "openssl"
require "uri"

module Postback
  # The tracker could not be reached: send the same postback, with the same txid, again later.
  class TryAgainLater < StandardError; end

  # The tracker will not count it however often it is sent; the message says why.
  class Refused < StandardError; end

  NO_ANSWER = [SystemCallError, SocketError, IOError, Timeout::Error, OpenSSL::SSL::SSLError,
               Net::HTTPBadResponse].freeze

  module_function

  def encode(text)
    URI.encode_www_form_component(text).gsub("+", "%20").gsub("*", "%2A").gsub("%7E", "~")
  end

  # What is signed: parameters decoded, encoded alike, sorted by name and value.
  def canonical_query(query)
    pairs = query.split("&").reject(&:empty?).map do |pair|
      name, _, value = pair.partition("=")
      [URI.decode_www_form_component(name), URI.decode_www_form_component(value)]
    end
    pairs.reject { |name, _| %w[sig sig_time].include?(name) }
         .map { |pair| pair.map { |text| encode(text) } }
         .sort.map { |pair| pair.join("=") }.join("&")
  end

  def sign(secret, method, path, query, body, time)
    text = ["postbackd-v1", method, path, canonical_query(query), Digest::SHA256.hexdigest(body), time].join("\n")
    OpenSSL::HMAC.hexdigest("SHA256", secret, text)
  end

  # Sends up to three times; returns the verdict.  +postback+: click_id, txid, type, value, currency ...
  def deliver(url, postback, secret = nil)
    if postback[:txid].to_s.empty?
      raise Refused, "give a txid: without one a retry cannot be told from a second sale"
    end

    uri = URI(url)
    pairs = postback.map { |name, value| "#{encode(name.to_s)}=#{encode(value.to_s)}" }
    uri.query = [uri.query, *pairs].compact.join("&")
    (1..3).each do |try|
      answer = ask(uri, secret)
      return read_verdict(answer) unless answer.is_a?(Exception) || busy?(answer.code.to_i)
      raise TryAgainLater, "#{trouble(answer)}: send the same postback, with the same txid, again later" if try == 3

      named = answer["retry-after"] unless answer.is_a?(Exception)
      sleep([Integer(named.to_s, 10, exception: false) || 2**(try - 1), 10].min)
    end
  end

  # One request; an exception where there was no answer.  Certificates are verified, redirects are not followed.
  def ask(uri, secret)
    headers = {}
    if secret
      now = Time.now.to_i.to_s
      headers["X-Postback-Signature"] = "t=#{now},v1=#{sign(secret, 'GET', uri.path, uri.query, '', now)}"
    end
    times = { open_timeout: 0.5, ssl_timeout: 1, read_timeout: 2, write_timeout: 1, max_retries: 0 }
    Net::HTTP.start(uri.host, uri.port, use_ssl: uri.scheme == "https", **times) do |http|
      http.get(uri.request_uri, headers)
    end
  rescue *NO_ANSWER => e
    e
  end

  def busy?(status)
    [408, 429].include?(status) || status >= 500
  end

  def trouble(answer)
    answer.is_a?(Exception) ? answer.message : answer.code
  end

  def read_verdict(answer)
    verdict = answer["postbackd-verdict"]
    case answer.code.to_i
    when 404
      raise Refused, "404: the tracker does not know this URL, or the signature is wrong: " \
                     "compare both with 'postbackd network list'"
    when 200..299, 422
      if %w[rejected unmatched].include?(verdict)
        raise Refused, "#{verdict}: #{answer['postbackd-reason']} (see the network's log: postbackd log)"
      end

      verdict || "delivered" # accepted, duplicate, updated, held, queued; other trackers name no verdict
    else
      raise Refused, "#{answer.code}: this is not the address of a tracker: look at POSTBACK_URL"
    end
  end
end

if $PROGRAM_NAME == __FILE__
  words = ARGV.to_h { |word| word.split("=", 2).then { |name, value| [name.to_sym, value.to_s] } }
  begin
    puts Postback.deliver(ENV.fetch("POSTBACK_URL"), words, ENV["POSTBACK_SECRET"])
  rescue Postback::TryAgainLater, Postback::Refused => e
    warn e.message
    exit(e.is_a?(Postback::TryAgainLater) ? 75 : 1)
  end
end
