-- For wrk: each connection sends so many requests at once, as the first argument says, before it reads the answers.
init = function(arguments)
   local requests = {}
   for number = 1, tonumber(arguments[1]) do
      requests[number] = wrk.format()
   end
   together = table.concat(requests)
end

request = function()
   return together
end
