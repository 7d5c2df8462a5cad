// The least that a handler needs: answer requests in the queue group q, with a body or with an error header.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/nats-io/nats.go"
)

func main() {
	nc, err := nats.Connect(os.Getenv("NATS_URL"), nats.MaxReconnects(-1)) // empty: 127.0.0.1:4222
	if err != nil {
		panic(err)
	}
	_, err = nc.QueueSubscribe("CHORIA_AJ.H.T.email:new", "q", func(request *nats.Msg) { go handle(request) })
	if err != nil || nc.Flush() != nil {
		panic("no subscription")
	}
	fmt.Println("ready")
	select {}
}

func handle(request *nats.Msg) {
	var task struct{ Payload []byte } // base64 in the JSON, which encoding/json undoes
	var email struct{ To string }
	reply := nats.NewMsg("")
	switch {
	case json.Unmarshal(request.Data, &task) != nil || json.Unmarshal(task.Payload, &email) != nil || email.To == "":
		reply.Header.Set("AJ-Terminate", "no address") // no further try can mend it
	case email.To == "nobody@example.net":
		reply.Header.Set("AJ-Error", "no such mailbox") // to be tried again
	default:
		reply.Data, _ = json.Marshal(map[string]string{"sent": email.To}) // the result
	}
	_ = request.RespondMsg(reply)
}
