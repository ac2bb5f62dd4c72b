-- What devices with hawkBit's API ask: whether there is something for them, 10,000 of them in turn.
-- The environment gives TENANT and TOKEN.
local here = "/" .. os.getenv("TENANT") .. "/controller/v1/r"
local headers = {["Authorization"] = "GatewayToken " .. os.getenv("TOKEN")}
local number = 0

request = function()
  number = (number + 7919) % 10000
  return wrk.format("GET", string.format("%s%05d", here, number), headers)
end

dofile(os.getenv("SCRIPTS") .. "/done.lua")
