//! From S3, with the credentials of the SDK's chain.

use crate::support::moto::Moto;
use crate::support::scripted::Scripted;
use crate::support::{Place, Said, content};

const CREDENTIALS: &str = "[default]\naws_access_key_id = default\naws_secret_access_key = default\n\
                           [other]\naws_access_key_id = other\naws_secret_access_key = other\n";

#[test]
fn objects_come_by_profile_environment_and_endpoint() {
    let (moto, place) = (Moto::start(), Place::new());
    let configuration = format!("[profile other]\nregion = us-east-1\nendpoint_url = {}\n", moto.url());
    moto.python(&format!(
        "s3.create_bucket(Bucket='bucket')
s3.put_object(Bucket='bucket', Key='folder/a b+c', Body=b'odd name')
s3.put_object(Bucket='bucket', Key='crc', Body=b'123456789', ChecksumAlgorithm='CRC32', ACL='public-read')
size = {size}
data = bytes(bytearray((i * 7 + i // 256) % 256 for i in range(65536))) * (size // 65536)
upload = s3.create_multipart_upload(Bucket='bucket', Key='parts')['UploadId']
half = size // 2
parts = [{{'PartNumber': n + 1, 'ETag': s3.upload_part(Bucket='bucket', Key='parts', UploadId=upload, PartNumber=n + 1, Body=data[n * half:(n + 1) * half])['ETag']}} for n in range(2)]
s3.complete_multipart_upload(Bucket='bucket', Key='parts', UploadId=upload, MultipartUpload={{'Parts': parts}})
assert '-2' in s3.head_object(Bucket='bucket', Key='parts')['ETag']
",
        size = 40 << 20
    ));
    let said = |arguments: &[&str], credentials: &str, configuration: &str| {
        Said::of(&moto.command(&place, credentials, configuration, arguments).output().unwrap())
    };

    // A profile with its endpoint and region; an object of parts, whose tag is no MD5, in ranges.
    let fetched = said(&["--profile", "other", "s3://bucket/parts", "s3://bucket/folder/a b+c"], CREDENTIALS, &configuration);
    assert_eq!(fetched.code, 0, "{}", fetched.err);
    assert_eq!(place.read("a b+c"), b"odd name");
    let whole = place.read("parts");
    assert!(
        whole.len() == 40 << 20 && whole.iter().enumerate().all(|(at, &byte)| byte == ((at % 65536 * 7 + at % 65536 / 256) % 256) as u8)
    );

    // By option and by the environment.
    let by_option = said(&["--endpoint-url", &moto.url(), "s3://bucket/crc"], CREDENTIALS, "");
    assert_eq!((by_option.code, place.read("crc")), (0, b"123456789".to_vec()), "{}", by_option.err);
    for name in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"] {
        let mut command = moto.command(&place, "", "", &["--overwrite", "s3://bucket/crc"]);
        command.env(name, moto.url()).env("AWS_ACCESS_KEY_ID", "env").env("AWS_SECRET_ACCESS_KEY", "env");
        assert!(command.output().unwrap().status.success(), "{name}");
    }

    // Without any credentials, and what is not there.
    let none = said(&["--endpoint-url", &moto.url(), "--overwrite", "s3://bucket/crc"], "", "");
    assert!(
        none.code == 1 && none.complaint().contains("no credentials for S3: ") && none.complaint().contains("try: aws configure"),
        "{}",
        none.err
    );
    let unsigned = said(&["--endpoint-url", &moto.url(), "--overwrite", "--no-sign-request", "s3://bucket/crc"], "", "");
    assert_eq!(unsigned.code, 0, "{}", unsigned.err);
    let missing = said(&["--endpoint-url", &moto.url(), "s3://bucket/missing"], CREDENTIALS, "");
    assert!(missing.code == 1 && missing.complaint().contains("404 (NoSuchKey)"), "{}", missing.err);
    let no_bucket = said(&["--endpoint-url", &moto.url(), "s3://no-bucket/x"], CREDENTIALS, "");
    assert!(no_bucket.code == 1 && no_bucket.complaint().contains("404 (NoSuchBucket)"), "{}", no_bucket.err);
}

#[test]
fn credentials_are_looked_at_and_never_told() {
    let (moto, place) = (Moto::start(), Place::new());
    let keys = moto.python(&format!(
        "s3.create_bucket(Bucket='bucket')
s3.put_object(Bucket='bucket', Key='a', Body={:?}.encode())
iam.create_user(UserName='reader')
iam.put_user_policy(UserName='reader', PolicyName='read', PolicyDocument=json.dumps({{'Version': '2012-10-17', 'Statement': {{'Effect': 'Allow', 'Action': 's3:*', 'Resource': '*'}}}}))
key = iam.create_access_key(UserName='reader')['AccessKey']
print(key['AccessKeyId'], key['SecretAccessKey'])
urllib.request.urlopen(urllib.request.Request(url + '/moto-api/reset-auth', data=b'0', headers={{'content-type': 'text/plain'}}))
",
        "a".repeat(1000)
    ));
    let (id, secret) = keys.trim().split_once(' ').unwrap();
    let run = |secret: &str, arguments: &[&str]| {
        let credentials = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
        Said::of(&moto.command(&place, &credentials, "", &[&["--endpoint-url", &moto.url()], arguments].concat()).output().unwrap())
    };
    let right = run(secret, &["s3://bucket/a"]);
    assert_eq!((right.code, place.read("a").len()), (0, 1000), "the signature is right: {}", right.err);
    let unknown = run(secret, &["--overwrite", "--profile", "absent", "s3://bucket/a"]);
    assert!(unknown.code == 1 && unknown.complaint().contains("no credentials for S3: ") && !unknown.err.contains(id), "{}", unknown.err);
    let wrong = run("wrong", &["--overwrite", "s3://bucket/a"]);
    assert!(wrong.code == 1 && wrong.complaint().contains("403 (SignatureDoesNotMatch); try: look at the credentials"), "{}", wrong.err);
    assert!(!wrong.err.contains(id) && !wrong.out.contains(id), "{}", wrong.err);
}

/// A bucket with an object, and what a role that may read it is given for an hour, as JSON. From then on moto looks at signatures.
fn of_a_role(moto: &Moto) -> serde_json::Value {
    let given = moto.python(
        "s3.create_bucket(Bucket='bucket')
s3.put_object(Bucket='bucket', Key='a', Body=b'of a role')
iam.create_role(RoleName='reader', AssumeRolePolicyDocument='{}')
iam.put_role_policy(RoleName='reader', PolicyName='read', PolicyDocument=json.dumps({'Version': '2012-10-17', 'Statement': {'Effect': 'Allow', 'Action': 's3:*', 'Resource': '*'}}))
given = client('sts').assume_role(RoleArn='arn:aws:iam::123456789012:role/reader', RoleSessionName='session')['Credentials']
print(json.dumps(given, default=str))
urllib.request.urlopen(urllib.request.Request(url + '/moto-api/reset-auth', data=b'0', headers={'content-type': 'text/plain'}))
",
    );
    serde_json::from_str(&given).unwrap()
}

/// By the second version of the instance's metadata service (docs.aws.amazon.com, EC2, "Use IMDS"): a token first, and nothing without it.
#[test]
fn an_instance_has_credentials_of_its_own() {
    let (moto, place) = (Moto::start(), Place::new());
    let given = of_a_role(&moto);
    let metadata = Scripted::start(move |request| match request.line.as_str() {
        "PUT /latest/api/token" if !request.header("x-aws-ec2-metadata-token-ttl-seconds").is_empty() => {
            (200, "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n".to_owned(), "token-of-the-instance".to_owned())
        }
        _ if request.header("x-aws-ec2-metadata-token") != "token-of-the-instance" => (401, String::new(), String::new()),
        "GET /latest/meta-data/iam/security-credentials/" => (200, String::new(), "reader".to_owned()),
        "GET /latest/meta-data/iam/security-credentials/reader" => {
            let words = serde_json::json!({
                "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z",
                "AccessKeyId": given["AccessKeyId"], "SecretAccessKey": given["SecretAccessKey"], "Token": given["SessionToken"],
            });
            (200, String::new(), words.to_string())
        }
        _ => (404, String::new(), String::new()),
    });
    let mut command = moto.command(&place, "", "", &["--endpoint-url", &moto.url(), "s3://bucket/a"]);
    command.env_remove("AWS_EC2_METADATA_DISABLED").env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url());
    let said = Said::of(&command.output().unwrap());
    assert_eq!((said.code, place.names()), (0, vec!["a".to_owned()]), "{} {:?}", said.err, metadata.lines());
    assert_eq!(place.read("a"), b"of a role");
    assert_eq!(metadata.lines()[0], "PUT /latest/api/token");
}

/// What `aws sso login` leaves behind is used: its token buys the role's credentials.
#[test]
fn a_login_by_sso_is_used() {
    let (moto, place) = (Moto::start(), Place::new());
    let given = of_a_role(&moto);
    let portal = Scripted::start(move |request| {
        if request.header("x-amz-sso_bearer_token") != "token-of-the-login" {
            return (401, String::new(), "{}".to_owned());
        }
        assert!(request.line.starts_with("GET /federation/credentials?") && request.line.contains("role_name=reader"), "{}", request.line);
        let words = serde_json::json!({ "roleCredentials": {
            "accessKeyId": given["AccessKeyId"], "secretAccessKey": given["SecretAccessKey"], "sessionToken": given["SessionToken"],
            "expiration": 4_070_908_800_000_u64,
        }});
        (200, "content-type: application/json\r\n".to_owned(), words.to_string())
    });
    let configuration = "[default]\nsso_session = s\nsso_account_id = 123456789012\nsso_role_name = reader\nregion = us-east-1\n\
                         [sso-session s]\nsso_region = us-east-1\nsso_start_url = https://example.awsapps.com/start\n";
    let home = tempfile::tempdir().unwrap();
    let cache = home.path().join(".aws/sso/cache");
    std::fs::create_dir_all(&cache).unwrap();
    let token = serde_json::json!({ "accessToken": "token-of-the-login", "expiresAt": "2099-01-01T00:00:00Z", "region": "us-east-1",
                                    "startUrl": "https://example.awsapps.com/start" });
    // The SHA-1 of the session's name.
    std::fs::write(cache.join("a0f1490a20d0211c997b44bc357e1972deab8ae3.json"), token.to_string()).unwrap();
    let mut command = moto.command(&place, "", configuration, &["--endpoint-url", &moto.url(), "s3://bucket/a"]);
    command.env("HOME", home.path()).env("AWS_ENDPOINT_URL", portal.url());
    let said = Said::of(&command.output().unwrap());
    assert_eq!((said.code, place.names()), (0, vec!["a".to_owned()]), "{} {:?}", said.err, portal.lines());
    assert_eq!(place.read("a"), b"of a role");
    assert!(!said.err.contains("token-of-the-login"));
}

/// S3 says where a bucket is, once.
#[test]
fn a_bucket_in_another_region_is_found_there() {
    let place = Place::new();
    let s3 = Scripted::start(|request| {
        if request.header("authorization").contains("/eu-central-1/s3/aws4_request") {
            (200, "etag: \"x\"\r\n".to_owned(), "there".to_owned())
        } else {
            (301, "x-amz-bucket-region: eu-central-1\r\n".to_owned(), "<Error><Code>PermanentRedirect</Code></Error>".to_owned())
        }
    });
    let mut command = place.command(&["-j", "1", "--endpoint-url", &s3.url(), "s3://bucket/a", "s3://bucket/b"]);
    command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "secret").env("AWS_REGION", "us-east-1");
    let said = Said::of(&command.output().unwrap());
    assert_eq!((said.code, place.names()), (0, vec!["a".to_owned(), "b".to_owned()]), "{}", said.err);
    assert_eq!(place.read("b"), b"there");
    assert_eq!(
        s3.lines(),
        ["GET /bucket/a", "GET /bucket/a", "GET /bucket/b"],
        "the second object is asked for in the right region at once"
    );
}

#[test]
fn an_object_that_is_not_what_its_checksum_says_gets_no_name() {
    use crate::support::server::{Manner, Server};

    // What S3 would send, from a server that lies.
    let server =
        Server::start(content(5000, 1), Manner { etag: Some("\"9e107d9d372bb6826bd81d3542a419d6\"".to_owned()), ..Manner::default() });
    let place = Place::new();
    let said = place.fetch(&["--no-sign-request", "--endpoint-url", server.url("").trim_end_matches('/'), "s3://bucket/a"]);
    assert!(said.code == 3 && said.complaint().contains("md5 mismatch: expected 9e107d9d372bb6826bd81d3542a419d6"), "{}", said.err);
    assert!(place.names().is_empty());
}
