-- Plays request lines that were written to a file beforehand: wrk -s play.lua URL -- FILE START COUNT
-- Prints what happened as one line of JSON.

local requests = {}
local count = 0
local position = 0
local verified = false

function init(arguments)
    local first, wanted = tonumber(arguments[2]), tonumber(arguments[3])
    local number = 0
    for target in io.lines(arguments[1]) do
        if number >= first then
            count = count + 1
            requests[count] = "GET " .. target .. " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\n\r\n"
            if count == wanted then break end
        end
        number = number + 1
    end
    -- Nothing is thrown away from here on: there is nothing to collect.
    collectgarbage("stop")
end

function request()
    -- wrk asks once before it begins, to see what a request looks like, and sends nothing.
    if not verified then
        verified = true
        return requests[1]
    end
    position = position + 1
    if position > count then position = 1 end
    return requests[position]
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '\n{"requests": %d, "micros": %d, "failed": %d, "not_ok": %d, "p50_us": %d, "p99_us": %d, "max_us": %d}\n',
        summary.requests, summary.duration, errors.connect + errors.read + errors.write + errors.timeout,
        errors.status, latency:percentile(50), latency:percentile(99), latency.max
    ))
end
