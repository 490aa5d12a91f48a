-- wrk's side of a measurement: sends the prepared requests in turn, and prints the result as one line of JSON.
-- Arguments: the file of requests, and a text that makes the unique names of this run differ from other runs'.

local NEXT, UNIQUE = "\n--next-request--\n", "@unique-name@@"
local threads = 0

function setup(thread)
   threads = threads + 1
   thread:set("thread_number", threads)
end

function init(args)
   local file = assert(io.open(args[1], "rb"))
   local text = file:read("*a")
   file:close()
   run = args[2]
   requests, position, counter = {}, thread_number * 7, 0
   local from = 1
   while true do
      local last, after = text:find(NEXT, from, true)
      local request = text:sub(from, (last or 0) - 1)
      local first, final = request:find(UNIQUE, 1, true)
      if first then
         requests[#requests + 1] = { request:sub(1, first - 1), request:sub(final + 1) }
      else
         requests[#requests + 1] = request
      end
      if not last then break end
      from = after + 1
   end
end

function request()
   position = position + 1
   local chosen = requests[position % #requests + 1]
   if type(chosen) == "string" then return chosen end
   counter = counter + 1
   return chosen[1] .. string.format("%s%02d%08d", run, thread_number, counter) .. chosen[2]
end

function done(summary, latency, _)
   local errors = summary.errors
   print(string.format(
      'RESULT {"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f, ' ..
      '"status": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      latency.max / 1e3, errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
