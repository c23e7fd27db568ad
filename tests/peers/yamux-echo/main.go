// A peer of hashicorp/yamux for the tests: plain yamux over one TCP connection that it dials.
//
//	yamux-echo ADDRESS server|client echo             sends back what comes on each stream, ends when the other side has
//	yamux-echo ADDRESS server|client open COUNT BYTES opens COUNT streams at once, sends BYTES on each and wants them back
//	yamux-echo ADDRESS server|client refuse           takes one stream into its backlog and no further ones
//
// What it sees it tells by lines on its standard output. Lines on its standard input ask it to do something more: "ping",
// "goaway", "open" (until that is refused), "close".
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

func main() {
	address, role, mode := os.Args[1], os.Args[2], os.Args[3]
	conn, err := net.Dial("tcp", address)
	check(err)
	config := yamux.DefaultConfig()
	config.LogOutput = os.Stderr
	config.AcceptBacklog = 2048
	config.EnableKeepAlive = false
	if mode == "refuse" {
		config.AcceptBacklog = 1
	}
	var session *yamux.Session
	if role == "server" {
		session, err = yamux.Server(conn, config)
	} else {
		session, err = yamux.Client(conn, config)
	}
	check(err)
	go obey(session)
	switch mode {
	case "echo":
		accept(session)
	case "open":
		open(session, number(os.Args[4]), number(os.Args[5]))
	}
	<-session.CloseChan()
	fmt.Println("ended")
	// The other side may still have a question.
	io.Copy(io.Discard, os.Stdin)
}

func accept(session *yamux.Session) {
	for {
		stream, err := session.AcceptStream()
		if err != nil {
			return
		}
		go echo(stream)
	}
}

func echo(stream *yamux.Stream) {
	buffer := make([]byte, 1<<16)
	for {
		count, err := stream.Read(buffer)
		if err == io.EOF {
			break
		}
		if err == nil {
			_, err = stream.Write(buffer[:count])
		}
		if err != nil {
			fmt.Println("broken:", err)
			return
		}
	}
	check(stream.Close())
}

func open(session *yamux.Session, count, length int) {
	block := make([]byte, length)
	for at := range block {
		block[at] = byte(at % 251)
	}
	var all sync.WaitGroup
	for index := 0; index < count; index++ {
		stream, err := session.OpenStream()
		check(err)
		all.Add(1)
		go func() {
			defer all.Done()
			go func() {
				_, err := stream.Write(block)
				check(err)
			}()
			back := make([]byte, length)
			_, err := io.ReadFull(stream, back)
			check(err)
			if !bytes.Equal(back, block) {
				fmt.Println("changed")
				os.Exit(1)
			}
			check(stream.Close())
		}()
	}
	all.Wait()
	fmt.Println("whole")
}

func obey(session *yamux.Session) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch lines.Text() {
		case "ping":
			_, err := session.Ping()
			check(err)
			fmt.Println("pong")
		case "goaway":
			check(session.GoAway())
			fmt.Println("said")
		case "open":
			for {
				stream, err := session.OpenStream()
				if err != nil {
					fmt.Println("refused:", err)
					break
				}
				stream.Close()
				time.Sleep(time.Millisecond)
			}
		case "close":
			session.Close()
		}
	}
	os.Exit(0)
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}
