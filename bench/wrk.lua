-- wrk's half: with SPREAD=n each request goes to the next of n connections; the result is one line that load.py reads.
local spread = tonumber(os.getenv("SPREAD") or "0")

if spread > 0 then
  local requests, at = {}, 0
  function init(args)
    for n = 0, spread - 1 do
      requests[n] = wrk.format("GET", (args[1]:gsub("{n}", n)))
    end
  end
  function request()
    at = (at + 7919) % spread
    return requests[at]
  end
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
