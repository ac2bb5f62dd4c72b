-- What a fleet asks: four of five requests are upgrade checks, the fifth polls a request that is answered.
-- The environment gives BUILT, the hash of that request. The result is one line of JSON.
local check = '{"distro":"tiny","version":"1.0","target":"x86/64","installed":{"motd":"1","notes":"1","old":"1"}}'
local newest = '{"distro":"tiny","version":"1.1","target":"x86/64","installed":{"motd":"2"}}'
local headers = {["Content-Type"] = "application/json"}
local poll = "/api/upgrade-request/" .. os.getenv("BUILT")
local number = 0

request = function()
  number = number + 1
  if number % 5 == 0 then
    return wrk.format("GET", poll)
  end
  return wrk.format("POST", "/api/upgrade-check", headers, number % 2 == 0 and check or newest)
end

done = function(summary, latency)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status
    + summary.errors.timeout
  io.write(string.format('\n{"requests": %d, "seconds": %.3f, "failed": %d, "p50": %.3f, "p99": %.3f}\n',
    summary.requests, summary.duration / 1e6, failed, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
