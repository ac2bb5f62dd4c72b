-- What a fleet asks: four of five requests are upgrade checks, the fifth polls a request that is answered.
-- The environment gives BUILT, the hash of that request.
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

dofile(os.getenv("SCRIPTS") .. "/done.lua")
