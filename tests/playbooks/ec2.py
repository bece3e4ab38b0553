"""The playbooks of EC2 against moto, which answers like EC2's API: what is launched, what is refused, and what is left."""

import http.server
import json
import os
import re
import selectors
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from moto import ARM_IMAGE, NEWEST_IMAGE, OLDER_IMAGE, REGION, Moto
from support import ROOT, Failed, Play, Suite, expect

NAME = "understudy"
ADDRESS = "127.77.0.10"
MANAGED = {"Key": "managed_by", "Value": "understudy"}
ALIVE = {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}

moto = Moto()


class Account:
    """What is in the account before anything of ours is: a network, keys, and things of others. Its addresses are on the loopback."""

    def __init__(self):
        self.ec2 = ec2 = moto.client()
        self.vpc = ec2.create_vpc(CidrBlock="127.77.0.0/16")["Vpc"]["VpcId"]
        self.subnet = ec2.create_subnet(VpcId=self.vpc, CidrBlock="127.77.0.0/24", AvailabilityZone=f"{REGION}a")["Subnet"]["SubnetId"]
        self.public = ec2.create_subnet(VpcId=self.vpc, CidrBlock="127.77.1.0/24", AvailabilityZone=f"{REGION}b")["Subnet"]["SubnetId"]
        ec2.modify_subnet_attribute(SubnetId=self.public, MapPublicIpOnLaunch={"Value": True})
        ec2.create_key_pair(KeyName="laptop")
        self.group = ec2.create_security_group(GroupName="of-others", Description="of others", VpcId=self.vpc)["GroupId"]
        elsewhere = ec2.create_vpc(CidrBlock="10.99.0.0/16")["Vpc"]["VpcId"]
        self.group_elsewhere = ec2.create_security_group(GroupName="elsewhere", Description="elsewhere", VpcId=elsewhere)["GroupId"]
        ec2.create_security_group(GroupName="group-taken", Description="of others", VpcId=self.vpc)
        # Neighbours that nothing here may touch: another name with our tag, our way of naming without the tag.
        self.neighbour = self.launch("neighbour", MANAGED)
        self.stranger = self.launch("name-taken")
        self.holder = self.launch("holder", address="127.77.0.99")

    def launch(self, name, *tags, address=None):
        interface = {"DeviceIndex": 0, "SubnetId": self.subnet, **({"PrivateIpAddress": address} if address else {})}
        tags = {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}, *tags]}
        made = self.ec2.run_instances(ImageId=OLDER_IMAGE, MinCount=1, MaxCount=1, InstanceType="t3.micro", NetworkInterfaces=[interface],
                                      TagSpecifications=[tags])
        return made["Instances"][0]["InstanceId"]

    def instances(self, name=NAME):
        answer = self.ec2.describe_instances(Filters=[{"Name": "tag:Name", "Values": [name]}, ALIVE])
        return [instance for reservation in answer["Reservations"] for instance in reservation["Instances"]]

    def groups(self, name=NAME):
        return self.ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": [name]}])["SecurityGroups"]

    def traces(self):
        """Everything that could have been made, changed or removed."""
        found = [f"{each['InstanceId']} {each['State']['Name']} {each.get('Tags')}" for reservation in
                 self.ec2.describe_instances()["Reservations"] for each in reservation["Instances"]]
        found += [f"{each['GroupId']} {each['IpPermissions']} {each.get('Tags')}" for each in self.ec2.describe_security_groups()["SecurityGroups"]]
        found += [each["VolumeId"] for each in self.ec2.describe_volumes()["Volumes"]]
        found += [each["NetworkInterfaceId"] for each in self.ec2.describe_network_interfaces()["NetworkInterfaces"]]
        return sorted(found)


class Ssh:
    """Says on port 22 of the subnet's addresses what an SSH server says first; moto's instances are only words."""

    def __init__(self, addresses):
        self._waiting = selectors.DefaultSelector()
        self._sockets = [socket.create_server((address, 22)) for address in addresses]
        for each in self._sockets:
            self._waiting.register(each, selectors.EVENT_READ)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            for key, _ in self._waiting.select():
                connection, _ = key.fileobj.accept()
                with connection:
                    connection.sendall(b"SSH-2.0-OpenSSH_10.0p2 Debian-7\r\n")


class Between(http.server.ThreadingHTTPServer):
    """Stands between the playbooks and moto: lets an action fail as AWS would, or holds it until as many ask for it as should at once."""

    def __init__(self, fails=None, at_once=None, times=2):
        between = self
        self.fails, self.barriers = fails or {}, {action: threading.Barrier(times, timeout=45) for action in at_once or []}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                action = urllib.parse.parse_qs(body.decode()).get("Action", [""])[0]
                if action in between.barriers:
                    try:
                        between.barriers[action].wait()
                    except threading.BrokenBarrierError:
                        pass  # the other one came too late or never: the check's own expectations tell
                if action in between.fails:
                    code, message = between.fails[action]
                    status, answer = 400, (f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
                                           f"<RequestID>0</RequestID></Response>").encode()
                else:
                    request = urllib.request.Request(moto.url + self.path, body, dict(self.headers))
                    try:
                        with urllib.request.urlopen(request) as asked:
                            status, answer = asked.status, asked.read()
                    except urllib.error.HTTPError as error:
                        status, answer = error.code, error.read()
                self.send_response(status)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def environment(self):
        return {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server_address[1]}"}


account = None
folder = None


def before():
    """A fresh account. What the operator's shell knows of AWS is forgotten: no test may reach the real one."""
    global account, folder
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    folder = Path(tempfile.mkdtemp(prefix="understudy-ec2-"))
    for name, mode in (("key", 0o600), ("open-key", 0o644)):
        (folder / name).write_text("not a real key\n")
        (folder / name).chmod(mode)
    moto.start()
    account = Account()


def after():
    moto.stop()
    shutil.rmtree(folder)


suite = Suite(before=before, after=after, explain=lambda: moto.log())


def values(**others):
    return {
        "understudy_ec2_subnet_id": account.subnet, "understudy_ec2_key_pair": "laptop", "understudy_ec2_private_key_file": str(folder / "key"),
        "understudy_ec2_private_address": ADDRESS, "understudy_ec2_public_address": False, "understudy_ec2_ssh_from": ["203.0.113.7/32"],
        "understudy_ec2_app_from": ["198.51.100.0/24", "203.0.113.7/32"], "understudy_ec2_ssh_seconds": 20, "understudy_app_port": 5001,
        "launch_ec2_instance_settle_seconds": 2, "ec2_account_known_hosts": str(folder / "known_hosts"), **others,
    }


def play(playbook, *arguments, environment=None, program=".venv/bin/ansible-playbook", **others):
    """A run as an operator would make it after `. scripts/envexports`."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", dir=folder) as file:
        json.dump(values(**others), file)
        file.flush()
        shell = {**moto.environment, "ANSIBLE_INVENTORY": "inventory/aws_ec2.yml", "ANSIBLE_DEPRECATION_WARNINGS": "False",
                 "ANSIBLE_LOCALHOST_WARNING": "False", **(environment or {})}
        return Play(f"{playbook}_ec2_instance", "-e", f"@{file.name}", *arguments, environment=shell, program=program)


def launch(*arguments, **others):
    return play("launch", *arguments, **others)


def in_pairs(function, items):
    """Two at a time: each is mostly Python that starts."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(function, items))


# --- In an account that has none of it --------------------------------------------------------------------------------


@suite.check
def a_check_of_a_launch_creates_nothing():
    before = account.traces()
    done = launch("--check", "--diff").succeeded()
    expect("nothing was created; without --check comes" in re.sub(r"\s+", " ", done.output), "it should say so", done.output)
    expect(account.traces() == before, "nothing should exist after --check", sorted(set(account.traces()) ^ set(before)))


NOT_ALLOWED = ("UnauthorizedOperation", "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/ops is not "
               "authorized to perform: ec2:{} on resource: * because no identity-based policy allows it.")

def refused(action):
    return {action: (NOT_ALLOWED[0], NOT_ALLOWED[1].format(action))}


def refusals():
    """What is given, and what is said. Two of them are no variables: `role` is not the launch's, `fails` what AWS answers to an action."""
    return {
        "no credentials": ({"environment": {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}}, "no credentials: AWS answered "),
        "credentials that AWS does not know": ({"fails": {"GetCallerIdentity": ("InvalidClientTokenId", "The security token is invalid.")}},
                                               "credentials refused: AWS answered 'Failed to retrieve caller identity"),
        "credentials of yesterday": ({"fails": {"GetCallerIdentity": ("ExpiredToken", "The security token included in the request is expired")}},
                                     "credentials expired: "),
        "a profile beside keys": ({"environment": {"AWS_PROFILE": "work"}}, "two kinds of credentials: "),
        "no region": ({"understudy_ec2_region": ""}, "impossible region: ''; try: understudy_ec2_region in variables/target.yml"),
        "a region that is none": ({"understudy_ec2_region": "us-esat-1", "environment": {"AWS_REGION": "us-esat-1"}},
                                  "no usable answer: AWS answered "),
        "an impossible name": ({"understudy_ec2_name": "under*"}, "impossible Name tag: 'under*'; try: understudy_ec2_name in variables/target.yml"),
        "a name of somebody else": ({"understudy_ec2_name": "name-taken"}, "Name tag taken: i-"),
        "no instances at all": ({"understudy_ec2_count": 0}, "impossible count: '0'; try: understudy_ec2_count in variables/target.yml"),
        "a count in words": ({"understudy_ec2_count": "two"}, "impossible count: 'two'; try: "),
        "no subnet": ({"understudy_ec2_subnet_id": ""}, "missing value: understudy_ec2_subnet_id is empty; try: the id of a subnet"),
        "an impossible subnet": ({"understudy_ec2_subnet_id": "subnet-x"}, "impossible value: understudy_ec2_subnet_id is 'subnet-x'; try: "),
        "an unknown subnet": ({"understudy_ec2_subnet_id": "subnet-0123456789abcdef0"},
                              f"unknown subnet: 'subnet-0123456789abcdef0' is not in {REGION} in account 123456789012; try: understudy_ec2_subnet_id"),
        "another zone than the subnet's": ({"understudy_ec2_zone": f"{REGION}b"}, f"two zones: understudy_ec2_zone is '{REGION}b', and the subnet subnet-"),
        "an address of another subnet": ({"understudy_ec2_private_address": "127.77.1.10"},
                                         "impossible address: understudy_ec2_private_address '127.77.1.10' is none that a host can have"),
        "an address that EC2 keeps": ({"understudy_ec2_private_address": "127.77.0.3"}, "impossible address: understudy_ec2_private_address '127.77.0.3'"),
        "no address": ({"understudy_ec2_private_address": "127.77.0.256"}, "impossible value: understudy_ec2_private_address is '127.77.0.256'; try: "),
        "an address that is taken": ({"understudy_ec2_private_address": "127.77.0.99"},
                                     "address in use: understudy_ec2_private_address '127.77.0.99' belongs to i-"),
        "one address for two": ({"understudy_ec2_count": 2}, "one address for 2 instances: understudy_ec2_private_address is '127.77.0.10'; try: "),
        "a public address that is not wanted": ({"understudy_ec2_subnet_id": account.public, "understudy_ec2_private_address": ""},
                                                "public address: understudy_ec2_public_address is false, but the subnet subnet-"),
        "an impossible image": ({"understudy_ec2_image_id": "debian"}, "impossible value: understudy_ec2_image_id is 'debian'; try: "),
        "an unknown image": ({"understudy_ec2_image_id": "ami-00000000000000000"}, f"unknown image: 'ami-00000000000000000' is not in {REGION}; try: "),
        "an image for other processors": ({"understudy_ec2_image_id": ARM_IMAGE}, f"unfit image: {ARM_IMAGE} (debian-13-arm64-20251117-2299) is arm64"),
        "no image of that name": ({"understudy_ec2_image_name": "debian-99-*"},
                                  "unknown image: owner '136693071363' has none that is called 'debian-99-*', for x86_64, in us-east-1; try: "),
        "no owner of images": ({"understudy_ec2_image_owner": ""}, "missing value: understudy_ec2_image_owner is empty; try: "),
        "a type for other processors": ({"understudy_ec2_instance_type": "t4g.micro"}, "impossible value: understudy_ec2_instance_type is 't4g.micro'; try: "),
        "a root volume that is too small": ({"understudy_ec2_root_volume_gibibytes": 8}, "root volume too small: ami-"),
        "a root volume without a size": ({"understudy_ec2_root_volume_gibibytes": "16 GiB"}, "impossible value: understudy_ec2_root_volume_gibibytes is "),
        "no key pair": ({"understudy_ec2_key_pair": ""}, "missing value: understudy_ec2_key_pair is empty; try: the name of a key pair"),
        "an unknown key pair": ({"understudy_ec2_key_pair": "nobody"}, f"unknown key pair: 'nobody' is not in {REGION} in account 123456789012; try: "),
        "no private key": ({"understudy_ec2_private_key_file": "/nowhere/key"}, "private key missing: '/nowhere/key'; try: understudy_ec2_private_key_file"),
        "a private key for everybody": ({"understudy_ec2_private_key_file": str(folder / "open-key")}, "has mode 0644; try: chmod 600 /"),
        "nobody for SSH": ({"understudy_ec2_ssh_from": []}, "missing value: understudy_ec2_ssh_from is empty, so nobody could reach SSH; try: "),
        "nobody for the app": ({"understudy_ec2_app_from": []}, "missing value: understudy_ec2_app_from is empty, so nobody could reach the app; try: "),
        "an address instead of a network": ({"understudy_ec2_ssh_from": ["203.0.113.7"]}, "impossible value: understudy_ec2_ssh_from is '['203.0.113.7']'; try: "),
        "an address within a network": ({"understudy_ec2_app_from": ["203.0.113.7/24"]}, "impossible value: '203.0.113.7/24' in understudy_ec2_ssh_from or"),
        "an impossible security group": ({"understudy_ec2_security_group_ids": ["of-others"]}, "impossible value: understudy_ec2_security_group_ids is "),
        "an unknown security group": ({"understudy_ec2_security_group_ids": ["sg-0123456789abcdef0"]}, "unknown security group: sg-0123456789abcdef0 is not in vpc-"),
        "a security group of another VPC": ({"understudy_ec2_security_group_ids": [account.group_elsewhere]}, "unknown security group: sg-"),
        "a security group's name that is taken": ({"understudy_ec2_name": "group-taken"}, "security group taken: sg-"),
        "no permission to look": ({"fails": refused("DescribeInstances")},
                                  "not allowed: ec2:DescribeInstances: AWS answered "),
        "no permission to make the group": ({"fails": refused("CreateSecurityGroup")},
                                            "to the attempt to have the security group; try: roles/ec2_account/files/iam-policy.json"),
        "no permission to launch": ({"fails": refused("RunInstances"), "understudy_ec2_security_group_ids": [account.group]},
                                    "try: give these credentials what roles/ec2_account/files/iam-policy.json allows (ec2:RunInstances is missing"),
        "a quota": ({"fails": {"RunInstances": ("VcpuLimitExceeded", "You have requested more vCPU capacity than your current limit of 1 allows.")},
                     "understudy_ec2_security_group_ids": [account.group]}, "quota reached: AWS answered 'Failed to run instances: "),
        "an action that there is not": ({"role": "manage", "understudy_ec2_action": "destroy"},
                                        "impossible action: understudy_ec2_action is 'destroy'; try: -e understudy_ec2_action=start, stop or restart"),
        "no action": ({"role": "manage"}, "impossible action: understudy_ec2_action is ''; try: "),
        "a name that nothing has": ({"role": "manage", "understudy_ec2_action": "stop", "understudy_ec2_name": "nobody"},
                                    f"no instance: nothing in {REGION} is called 'nobody' and has the tag managed_by=understudy; try: "),
        "the name of what is not ours": ({"role": "manage", "understudy_ec2_action": "stop", "understudy_ec2_name": "name-taken"},
                                         f"({account.stranger} has the name only); try: "),
        "an end without the name": ({"role": "terminate"}, "not confirmed: '' is not the Name tag 'understudy' (understudy_ec2_name in"),
        "an end with another name": ({"role": "terminate", "understudy_ec2_confirm_name": "understudi"}, "so nothing was changed; try: type that name"),
        "an end that is not allowed": ({"role": "terminate", "understudy_ec2_name": "neighbour", "understudy_ec2_confirm_name": "neighbour",
                                        "fails": refused("TerminateInstances")}, "not allowed: ec2:TerminateInstances: AWS answered "),
        "an end that is ruled out": ({"role": "terminate", "understudy_ec2_name": "neighbour", "understudy_ec2_confirm_name": "neighbour", "fails": {
            "TerminateInstances": ("OperationNotPermitted", "The instance may not be terminated. Modify its disableApiTermination attribute.")}},
            "protected: AWS answered "),
    }




def roles_with(cases):
    """The roles with the values of many cases in one run of Ansible, each a host of its own: what every host said last, and how many changed."""
    defaults = yaml.safe_load((ROOT / "playbooks/group_vars/all.yml").read_text())
    hosts = {}
    for number, (given, _) in enumerate(cases):
        given = dict(given)
        shell = dict(moto.environment)
        if "fails" in given:
            shell.update(Between(fails=given.pop("fails")).environment)
        shell.update(given.pop("environment", {}))
        hosts[f"case{number}"] = {**values(**given), "case_environment": shell, "case_role": f"{given.pop('role', 'launch')}_ec2_instance"}
    everywhere = {**defaults, "ansible_connection": "local", "ansible_python_interpreter": str(ROOT / ".venv/bin/python")}
    (folder / "cases.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": everywhere}}))
    (folder / "refuse.yml").write_text(yaml.safe_dump([{
        "hosts": "all", "gather_facts": False, "environment": "{{ case_environment }}",
        "tasks": [{"ansible.builtin.include_role": {"name": "{{ case_role }}"}}]}]))
    done = subprocess.run([".venv/bin/ansible-playbook", "-i", str(folder / "cases.yml"), str(folder / "refuse.yml")], cwd=ROOT, text=True,
                          env={**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_FORKS": "4", "ANSIBLE_DEPRECATION_WARNINGS": "False"},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        told = json.loads(done.stdout[done.stdout.index("{"):done.stdout.rindex("}") + 1])
    except ValueError:
        raise Failed(f"the run of all cases is not understood\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}") from None
    said = {host: "" for host in hosts}
    for task in (task for each in told["plays"] for task in each["tasks"]):
        for host, result in task["hosts"].items():
            if result.get("failed"):
                said[host] = next((each["msg"] for each in result.get("results", []) if each.get("failed")), result.get("msg", ""))
    return [(said[host], told["stats"][host]["changed"]) for host in hosts]


@suite.check
def bad_input_is_refused_before_anything_is_created():
    before, table = account.traces(), refusals()
    for (name, (_, message)), (said, changed) in zip(table.items(), roles_with(table.values())):
        expect(message in said and "\n" not in said.strip(), f"{name}: the refusal should say in one line '{message}'", said)
        expect("; try: " in said or "; try in " in said, f"{name}: the refusal should have a remedy", said)
        expect(changed == 0, f"{name}: a refusal changes nothing", changed)
    expect(account.traces() == before, "nothing should exist after a refusal", sorted(set(account.traces()) ^ set(before)))


@suite.check
def the_playbook_refuses_as_well():
    before = account.traces()
    no_keys = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "ANSIBLE_INVENTORY": "inventory/local.yml"}
    in_pairs(lambda refuse: refuse(), [
        lambda: launch(environment=no_keys).refused("no credentials: AWS answered "),
        lambda: launch(understudy_ec2_region="eu-central-1").refused("two regions: understudy_ec2_region in variables/target.yml is 'eu-central-1'"),
        lambda: launch(understudy_ec2_private_key_file=str(folder / "open-key")).refused(f"has mode 0644; try: chmod 600 {folder}/open-key"),
        lambda: launch("--check", understudy_ec2_subnet_id="subnet-0123456789abcdef0").refused("unknown subnet: 'subnet-0123456789abcdef0' is not in "),
    ])
    expect(account.traces() == before, "nothing should exist after a refusal", sorted(set(account.traces()) ^ set(before)))


# --- Launched ---------------------------------------------------------------------------------------------------------


@suite.check(always=True)
def a_host_without_ssh_is_said_to_have_none_and_a_second_run_goes_on():
    started = time.monotonic()
    done = launch(understudy_ec2_ssh_seconds=2)
    said = re.sub(r"\s+", " ", done.output)
    expect(done.code != 0 and f"at {ADDRESS} port 22 did not answer within 2 s; try: understudy_ec2_ssh_from" in said, "it should have refused", done.output)
    expect(time.monotonic() - started < 90, "two seconds of waiting should not become minutes")
    expect(len(account.instances()) == 1, "one should have been launched", account.instances())
    Ssh([f"127.77.0.{number}" for number in range(4, 31)])
    done = launch().succeeded(changed=0)
    expect(f"--private-key {folder}/key" in re.sub(r"\s+", " ", done.output), "the next command should be said", done.output)
    expect(len(account.instances()) == 1, "a second run launches nothing", account.instances())


@suite.check
def what_was_launched_is_what_was_asked_for():
    (instance,) = account.instances()
    expect(instance["ImageId"] == NEWEST_IMAGE, "the newest of Debian's images for x86-64 should have been taken", instance["ImageId"])
    expect(instance["InstanceType"] == "t3.micro" and instance["KeyName"] == "laptop", "type and key pair", instance)
    expect((instance["PrivateIpAddress"], instance["SubnetId"]) == (ADDRESS, account.subnet), "address and subnet", instance)
    expect("PublicIpAddress" not in instance, "no public address was asked for", instance)
    options = instance["MetadataOptions"]
    expect((options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 1), "IMDSv2 only, and one hop", options)
    tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
    expect(tags == {"Name": NAME, "managed_by": "understudy"}, "the tags", tags)
    (device,) = instance["BlockDeviceMappings"]
    expect(device["DeviceName"] == "/dev/xvda" and device["Ebs"]["DeleteOnTermination"], "the root volume goes with the instance", device)
    (volume,) = account.ec2.describe_volumes(VolumeIds=[device["Ebs"]["VolumeId"]])["Volumes"]
    expect((volume["VolumeType"], volume["Size"], volume["Encrypted"]) == ("gp3", 16, True), "the root volume", volume)
    expect({tag["Key"]: tag["Value"] for tag in volume["Tags"]} == tags, "the volume has the instance's tags", volume)
    (group,) = account.groups()
    expect([each["GroupId"] for each in instance["SecurityGroups"]] == [group["GroupId"]], "its one security group", instance["SecurityGroups"])
    expect(group["VpcId"] == account.vpc and MANAGED in group["Tags"], "the security group", group)
    rules = sorted((rule["IpProtocol"], rule["FromPort"], rule["ToPort"], sorted(each["CidrIp"] for each in rule["IpRanges"])) for rule in group["IpPermissions"])
    expect(rules == [("tcp", 22, 22, ["203.0.113.7/32"]), ("tcp", 5001, 5001, ["198.51.100.0/24", "203.0.113.7/32"])], "the rules", rules)


@suite.check
def a_check_of_what_is_launched_changes_nothing():
    before = account.traces()
    launch("--check", "--diff").succeeded(changed=0)
    expect(account.traces() == before, "--check changes nothing", sorted(set(account.traces()) ^ set(before)))


@suite.check
def rules_made_by_hand_are_taken_out_of_our_security_group():
    (group,) = account.groups()
    account.ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[
        {"IpProtocol": "tcp", "FromPort": 5432, "ToPort": 5432, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}])
    launch().succeeded(changed=1)
    (mended,) = account.groups()
    expect(mended["IpPermissions"] == group["IpPermissions"], "the rules should be as before", mended["IpPermissions"])


@suite.check
def more_than_the_count_is_refused_and_none_is_terminated():
    second = account.launch(NAME, MANAGED)
    try:
        launch().refused("too many instances: i-")
        expect(len(account.instances()) == 2, "none may be terminated", account.instances())
    finally:
        account.ec2.terminate_instances(InstanceIds=[second])


# --- The inventory and the shell --------------------------------------------------------------------------------------


def sourced(shell, *, environment=None, then="true", file="scripts/envexports"):
    """What a shell says that sources the file, and what it has in its environment then."""
    shell_environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **(environment or {})}
    done = subprocess.run([shell, "-c", f'. "{file}"; code=$?; {then}; exit $code'], cwd=ROOT, env=shell_environment, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return done.returncode, done.stdout, done.stderr


SHELLS = [shell for shell in ("bash", "dash", "zsh") if shutil.which(shell)]


@suite.check
def envexports_sets_everything_or_nothing_and_shows_no_secret():
    keys = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "a-secret"}
    credentials = folder / "credentials"
    credentials.write_text("[default]\naws_access_key_id = x\naws_secret_access_key = a-secret\n[work]\naws_access_key_id = y\n")
    profile = {"AWS_SHARED_CREDENTIALS_FILE": str(credentials)}
    config = folder / "config"
    config.write_text("[profile role]\nrole_arn = x\n")
    for shell in SHELLS:
        for environment, said in (
            (keys, "credentials of the environment (AWS_ACCESS_KEY_ID)"),
            (profile, "credentials of the AWS profile 'default'"),
            ({**profile, "AWS_PROFILE": "work"}, "credentials of the AWS profile 'work'"),
            ({"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "role"}, "credentials of the AWS profile 'role'"),
        ):
            code, out, errors = sourced(shell, environment=environment, then=". scripts/envexports; env; command -v ansible-playbook")
            expect(code == 0 and out.startswith(f"envexports: region {REGION}, {said}, inventory ") and not errors, f"{shell}: it should say so", out + errors)
            for line in (f"ANSIBLE_CONFIG={ROOT}/ansible.cfg", f"ANSIBLE_INVENTORY={ROOT}/inventory/aws_ec2.yml", f"AWS_REGION={REGION}",
                         f"AWS_DEFAULT_REGION={REGION}", f"{ROOT}/.venv/bin/ansible-playbook"):
                expect(f"\n{line}\n" in out, f"{shell}: {line} should be there", out)
            expect(out.count(f"{ROOT}/.venv/bin:") == 1, f"{shell}: PATH should not grow when it is sourced again", out)
            expect("_envexports" not in out and "a-secret" not in out.replace("AWS_SECRET_ACCESS_KEY=a-secret", ""), f"{shell}: nothing else", out)
        for environment, said in (
            ({}, "envexports: no credentials: neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor an AWS profile 'default'; try: "),
            ({**profile, "AWS_PROFILE": "home"}, "envexports: no credentials: neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor an AWS profile 'home'; "),
            ({"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE"}, "envexports: half of the credentials: only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set; try: "),
            ({**keys, "AWS_PROFILE": "work"}, "envexports: two kinds of credentials: AWS_PROFILE 'work' and AWS_ACCESS_KEY_ID; try: "),
        ):
            code, out, errors = sourced(shell, environment=environment, then="env")
            expect(code == 1 and errors.startswith(said) and errors.count("\n") == 1, f"{shell}: it should refuse with '{said}'", out + errors)
            expect("ANSIBLE_" not in out and "AWS_REGION" not in out and ".venv" not in out, f"{shell}: nothing should be exported", out)
        # A folder without a virtual environment, and one that is no repository of ours.
        bare = folder / f"bare-{shell}"
        for path in ("scripts/envexports", "scripts/value-of", "variables/target.yml", "inventory/aws_ec2.yml"):
            (bare / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, bare / path)
        code, out, errors = sourced(shell, environment=keys, file=f"{bare}/scripts/envexports", then="env") if shell != "dash" else (1, "", "")
        expect(code == 1 and (shell == "dash" or errors == f"envexports: Ansible is missing: '{bare}/.venv'; try: make setup\n"), f"{shell}: no .venv", errors)


@suite.check
def the_inventory_finds_ours_by_name_and_tag_and_nothing_else():
    def listed(*arguments):
        environment = {name: value for name, value in moto.environment.items() if name not in ("AWS_REGION", "AWS_DEFAULT_REGION")}
        code, out, errors = sourced("bash", environment=environment, then=f"ansible-inventory --list {' '.join(arguments)}")
        expect(code == 0 and "{" in out, "the inventory should be listed", out + errors)
        # What came from EC2 is marked as no template.
        return json.loads(out[out.index("{"):], object_hook=lambda found: found["__ansible_unsafe"] if list(found) == ["__ansible_unsafe"] else found)

    (instance,) = account.instances()
    host = f"{NAME}-{instance['InstanceId']}"
    neighbour = f"neighbour-{account.neighbour}"
    seen = listed("-e", "@variables/target.yml")
    expect(seen["understudy"]["hosts"] == [host] == seen["name_understudy"]["hosts"], "ours should be in its groups", seen)
    expect(seen["name_neighbour"]["hosts"] == [neighbour], "what else has our tag is in the group of its own name", seen)
    expect(account.stranger not in json.dumps(seen), "what lacks our tag should not be there", seen)
    known = seen["_meta"]["hostvars"][host]
    expect((known["ansible_host"], known["ansible_user"], known["ansible_python_interpreter"]) == (ADDRESS, "admin", "/usr/bin/python3"), "how it is reached", known)
    expect("StrictHostKeyChecking=accept-new" in known["ansible_ssh_common_args"], "how its key is learnt", known["ansible_ssh_common_args"])
    seen = listed("-e", "understudy_ec2_name=neighbour", "-e", "understudy_ec2_ssh_user=ubuntu")
    expect(seen["understudy"]["hosts"] == [neighbour], "the variables decide which are meant", seen)
    expect(seen["_meta"]["hostvars"][neighbour]["ansible_user"] == "ubuntu", "and the user", seen)


# --- Start, stop, restart ---------------------------------------------------------------------------------------------


def manage(action, *arguments, **others):
    return play("manage", *arguments, understudy_ec2_action=action, **others)


def state():
    return [instance["State"]["Name"] for instance in account.instances()]


@suite.check
def it_is_stopped_and_started_and_restarted():
    before = account.traces()
    manage("stop", "--check").succeeded(changed=1)
    expect(account.traces() == before, "--check stops nothing", account.traces())
    manage("stop").succeeded(changed=1)
    expect(state() == ["stopped"], "it should be stopped", state())
    refusals = [lambda: launch().refused("stopped: i-"), lambda: manage("stop").succeeded(changed=0)]
    in_pairs(lambda refuse: refuse(), refusals)
    expect(state() == ["stopped"], "a launch starts nothing", state())
    done = manage("start").succeeded(changed=1)
    expect(state() == ["running"] and f"runs at {ADDRESS}" in done.output, "it should run, and say where", done.output)
    in_pairs(lambda again: again(), [lambda: manage("start").succeeded(changed=0), lambda: manage("start", "--check", "--diff").succeeded(changed=0)])
    manage("restart").succeeded(changed=2)
    expect(state() == ["running"], "it should run again", state())


# --- Two at once ------------------------------------------------------------------------------------------------------


@suite.check
def two_launches_at_once_leave_exactly_as_many_as_were_asked_for():
    name = "race"
    # Both see an empty account, both make the security group, both launch.
    between = Between(at_once=["CreateSecurityGroup", "RunInstances"])
    runs = in_pairs(lambda _: launch(environment=between.environment, understudy_ec2_name=name, understudy_ec2_private_address="",
                                     understudy_ec2_count=2, launch_ec2_instance_settle_seconds=4), [1, 2])
    everything = "\n".join(each.output for each in runs)
    left = [instance["InstanceId"] for instance in account.instances(name)]
    expect(len(left) == 2, f"two should be left, not {left}", everything)
    expect(len(account.groups(name)) == 1, "one security group should be there", account.groups(name))
    said = [re.sub(r"\s+", " ", each.succeeded().output).replace("''", "'") for each in runs]
    expect(any("a second launch ran at the same time: i-" in each for each in said), "who took something back should say so", everything)
    for each, instance in ((each, instance) for each in said for instance in left):
        expect(f"{instance} 'race': no public address, private 127.77.0." in each, "both should end with those that are left", everything)
    play("terminate", understudy_ec2_name=name, understudy_ec2_confirm_name=name).succeeded(changed=2)


# --- Taken away -------------------------------------------------------------------------------------------------------


def terminate(confirm, *arguments, **others):
    return play("terminate", *arguments, **({} if confirm is None else {"understudy_ec2_confirm_name": confirm}), **others)


@suite.check
def only_the_name_typed_again_terminates():
    before = account.traces()
    in_pairs(lambda refuse: refuse(), [
        lambda: terminate(None).refused("not confirmed: '' is not the Name tag 'understudy' (understudy_ec2_name in variables/target.yml), so nothing was changed"),
        lambda: terminate("understudi").refused("not confirmed: 'understudi' is not the Name tag 'understudy'"),
        lambda: terminate(NAME, "--check", "--diff").succeeded(changed=2),
    ])
    expect(account.traces() == before, "nothing may be gone", sorted(set(account.traces()) ^ set(before)))


@suite.check(always=True)
def what_is_terminated_is_ours_and_all_of_it():
    others = [account.neighbour, account.stranger, account.holder]
    (instance,) = account.instances()
    volume = instance["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    (folder / "known_hosts").write_text(f"{ADDRESS} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJPN7bcUHEDdPLlFhUjHL9X1vCdXYxYyuLHJXjDLgJhL\n")
    done = terminate(NAME).succeeded(changed=3)
    expect("and the data on it" in done.output, "it should say that the data go, too", done.output)
    expect(account.instances() == [] and account.groups() == [], "nothing of ours should be left", account.traces())
    left = account.ec2.describe_volumes(Filters=[{"Name": "volume-id", "Values": [volume]}])["Volumes"]
    expect(left == [], "its root volume should be gone", left)
    expect(ADDRESS not in (folder / "known_hosts").read_text(), "its host key should be forgotten")
    for reservation in account.ec2.describe_instances(InstanceIds=others)["Reservations"]:
        for each in reservation["Instances"]:
            expect(each["State"]["Name"] == "running", "nothing of others may be touched", each)
    expect([group["GroupId"] for group in account.groups("of-others")] == [account.group], "nor their security groups")
    terminate(NAME).succeeded(changed=0)


# --- What all of it was allowed to ------------------------------------------------------------------------------------

# Actions that are called, and that the policy need not allow.
NOT_IN_THE_POLICY = {
    "sts:GetCallerIdentity": "AWS allows it to everybody",
    "iam:ListAccountAliases": "aws_caller_info asks for it and goes on without: the alias is not used",
    "ec2:ModifyInstanceAttribute": "moto does not take the groups of a network interface for the instance's, so the module sets them again; AWS does",
}
# Actions that AWS asks to be allowed, and that are no call of their own.
NOT_SEEN_BY_MOTO = {
    "ec2:CreateTags": "tags that are given with RunInstances and CreateSecurityGroup",
    "ec2:UpdateSecurityGroupRuleDescriptionsIngress": "only where somebody described a rule of ours by hand; moto's answer to it is not what AWS's is",
}


@suite.check
def the_policy_allows_what_the_playbooks_call_and_nothing_else():
    policy = json.loads((ROOT / "roles/ec2_account/files/iam-policy.json").read_text())
    allowed = set()
    for statement in policy["Statement"]:
        expect(statement["Effect"] == "Allow", "it only allows", statement)
        allowed.update([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    called = moto.actions()
    expect(called - allowed == set(NOT_IN_THE_POLICY), "called, and not allowed", sorted((called - allowed) ^ set(NOT_IN_THE_POLICY)))
    expect(allowed - called == set(NOT_SEEN_BY_MOTO), "allowed, and never called", sorted((allowed - called) ^ set(NOT_SEEN_BY_MOTO)))
    expect(not any("*" in action for action in allowed), "each action is named", sorted(allowed))
