package nats;
# As much of the NATS client protocol as a handler needs, on a bare socket: docs.nats.io, "Client Protocol".
# Knows frames and the connection; what a message means is handler.pl's business.
use strict;
use warnings;
use IO::Socket::IP;
use JSON::PP;

my $MOST_UNSENT = 16 * 1024 * 1024;

sub new {
    my ($class, %with) = @_;
    # url; subscriptions: [[subject, group, callback], ...]
    return bless { %with, in => '', out => [], unsent => 0, max_payload => 1024 * 1024, pongs => 0 }, $class;
}

sub socket { return $_[0]{socket} }
sub max_payload { return $_[0]{max_payload} }
sub pongs { return $_[0]{pongs} }

# Connect and subscribe. Returns false when nobody is there; dies when the login is refused.
sub connect {
    my ($self) = @_;
    for my $url (split /,/, $self->{url}) {
        my ($login, $host, $port) = $url =~ m{^(?:nats://)?(?:([^@/]*)@)?([^:/]+|\[[^\]]+\])(?::(\d+))?} or next;
        $host =~ tr/[]//d;
        $self->{socket} = IO::Socket::IP->new(PeerHost => $host, PeerPort => $port // 4222, Timeout => 2) or next;
        $self->{in} = '';
        my $info = $self->_line // next;
        next if $info !~ /^INFO (.*)/;
        $self->{max_payload} = decode_json($1)->{max_payload};
        my %options = (verbose => JSON::PP::false, pedantic => JSON::PP::false, headers => JSON::PP::true,
            no_responders => JSON::PP::true, lang => 'perl', version => '1', name => 'aj-handler');
        if (defined $login && length $login) {
            my ($user, $password) = split /:/, $login, 2;
            @options{ defined $password ? ('user', 'pass') : ('auth_token') } = ($user, $password // ());
        }
        my $hello = 'CONNECT ' . encode_json(\%options) . "\r\n";
        my $sid = 0;
        for my $each (@{ $self->{subscriptions} }) {
            my ($subject, $group, undef, $gone) = @$each;
            $sid++;
            $hello .= "SUB $subject " . (length $group ? "$group " : '') . "$sid\r\n" if !$gone;
        }
        $self->_write("$hello" . "PING\r\n") or next;
        my $answer = $self->_line // next;
        die "the server refuses us: $answer\n" if $answer =~ /^-ERR .*(?:uthorization|ermissions)/;
        $self->{pongs} += 1000;    # no PING of before will be answered here
        return $self->flush;
    }
    delete $self->{socket};
    return 0;
}

sub _line {    # before there is anything else to read
    my ($self) = @_;
    while (1) {
        return $1 if $self->{in} =~ s/^(.*?)\r\n//;
        sysread($self->{socket}, $self->{in}, 65536, length $self->{in}) or return undef;
    }
}

sub _write {
    my ($self, $bytes) = @_;
    local $SIG{PIPE} = 'IGNORE';
    my $at = 0;
    while ($at < length $bytes) {
        my $sent = syswrite($self->{socket}, $bytes, length($bytes) - $at, $at);
        if (!defined $sent) {
            next if $!{EINTR};
            delete $self->{socket};
            return 0;
        }
        $at += $sent;
    }
    return 1;
}

# Send what could not be sent before, whole frames, oldest first.
sub flush {
    my ($self) = @_;
    while ($self->{socket} && @{ $self->{out} }) {
        $self->_write($self->{out}[0]) or return 0;
        $self->{unsent} -= length shift @{ $self->{out} };
    }
    return $self->{socket} ? 1 : 0;
}

sub _frame {
    my ($self, $frame) = @_;
    if ($self->{unsent} + length $frame > $MOST_UNSENT) {
        warn "no server for long: a message is lost\n";
        return;
    }
    push @{ $self->{out} }, $frame;
    $self->{unsent} += length $frame;
    $self->flush;
    return;
}

# Publish. Headers are [name, bytes] pairs. Returns false when it is larger than the server takes.
sub publish {
    my ($self, $subject, $headers, $body) = @_;
    my $block = '';
    if (@$headers) {
        $block = "NATS/1.0\r\n" . join('', map { "$_->[0]: $_->[1]\r\n" } @$headers) . "\r\n";
    }
    my $total = length($block) + length $body;
    return 0 if $total > $self->{max_payload};
    my $line = length $block ? 'HPUB ' . "$subject " . length($block) . " $total" : "PUB $subject $total";
    $self->_frame("$line\r\n$block$body\r\n");
    return 1;
}

sub ping { $_[0]->_frame("PING\r\n"); return }

# Take the first subscription back. What the server had sent before it knew comes before the answer to this PING.
sub drain {
    my ($self) = @_;
    $self->{subscriptions}[0][3] = 1;
    $self->_frame("UNSUB 1\r\nPING\r\n");
    return;
}

# Read what has come, and call the subscriptions' callbacks with (subject, reply, headers, body).
sub read {
    my ($self) = @_;
    my $count = sysread($self->{socket}, $self->{in}, 262_144, length $self->{in});
    if (!$count) {
        return if !defined $count && $!{EINTR};
        delete $self->{socket};
        return;
    }
    while ($self->{in} =~ /^([^\r\n]*)\r\n/) {
        my ($line, $rest) = ($1, $+[0]);
        if ($line =~ /^(H?)MSG (\S+) (\d+) (?:(\S+) )?(?:(\d+) )?(\d+)$/) {
            my ($with, $subject, $sid, $reply, $header_bytes, $total) = ($1, $2, $3, $4, $5, $6);
            if (!$with && defined $header_bytes) {    # MSG subject sid reply total, with a reply of digits alone
                ($reply, $header_bytes) = ($header_bytes, undef);
            }
            last if length $self->{in} < $rest + $total + 2;
            my $message = substr $self->{in}, $rest, $total;
            substr($self->{in}, 0, $rest + $total + 2) = '';
            my $block = substr $message, 0, $with ? $header_bytes : 0, '';
            my @headers;
            for (split /\r\n/, $block) {
                push @headers, [$1, $2] if /^([^:\s]+):\s*(.*?)\s*$/;
            }
            $self->{subscriptions}[$sid - 1][2]->($subject, $reply // '', \@headers, $message);
            next;
        }
        substr($self->{in}, 0, $rest) = '';
        if    ($line eq 'PING')     { $self->_frame("PONG\r\n") }
        elsif ($line eq 'PONG')     { $self->{pongs}++ }
        elsif ($line =~ /^-ERR (.*)/) { warn "the server says $1\n" }
    }
    return;
}

1;
